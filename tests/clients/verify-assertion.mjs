// Verifies an assertion of the gateway's as a service behind it would: reads key set, token and audience
// from standard input, and says how the client is known, or why not.
import { createLocalJWKSet, jwtVerify } from "jose";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const { keys, token, audience } = JSON.parse(text);
try {
  const { payload } = await jwtVerify(token, createLocalJWKSet(keys), { issuer: "portcullis", audience });
  console.log(payload.amr.join());
} catch (error) {
  console.log(`refused: ${error.code}`);
}
