// Answers 204 to a bearer token whose signature is HS512's and whose time has not passed. WebCrypto, since
// the crypto module of njs ends at SHA-256; it needs a subrequest, as it is asynchronous. Nothing is
// remembered, so every token is verified each time.
const algorithm = { name: 'HMAC', hash: 'SHA-512' };
async function holds(text) {
    var m = /^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(text || '');
    if (!m) return false;
    var header = JSON.parse(Buffer.from(m[1], 'base64url').toString());
    var claims = JSON.parse(Buffer.from(m[2], 'base64url').toString());
    if (header.alg !== 'HS512' || claims.iss !== 'https://hs512.example.com') return false;
    if (!(claims.exp > Date.now() / 1000)) return false;
    var key = await crypto.subtle.importKey('raw', Buffer.from('@SECRET@'), algorithm, false, ['verify']);
    return crypto.subtle.verify('HMAC', key, Buffer.from(m[3], 'base64url'), Buffer.from(m[1] + '.' + m[2]));
}
async function check(r) {
    var good = await holds(r.headersIn['Authorization']);
    r.return(good ? 204 : 401);
}
export default { check };
