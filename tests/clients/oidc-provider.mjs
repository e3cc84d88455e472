// A certified OpenID provider that the tests log in at. It names its address on its first line, and
// takes key ids on standard input: "a b" serves keys a and b from then on, signs with a, and says so.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

const audience = 'https://gateway.example';
const keys = new Map();

function key(kid) {
  if (!keys.has(kid)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    keys.set(kid, { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES256' });
  }
  return keys.get(kid);
}

function provider(issuer, kids) {
  return new Provider(issuer, {
    jwks: { keys: kids.map(key) },
    clients: [
      {
        client_id: 'tester',
        client_secret: 'a secret of the tests',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: () => ({
          audience,
          scope: 'read write',
          accessTokenTTL: 3600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256', kid: kids[0] } },
        }),
      },
    },
  });
}

let answer = (_, response) => response.end();
const server = createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  console.log(`issuer ${issuer}`);
  createInterface({ input: process.stdin }).on('line', (line) => {
    answer = provider(issuer, line.split(' ')).callback();
    console.log(`serving ${line}`);
  });
});
