// An OpenID provider on this machine, for the end-to-end tests: everybody may log in, with any password.
//
// Usage: node provider.mjs PORT REDIRECT_URI AFTER_LOGOUT_URI

import Provider from 'oidc-provider';

const [port, redirect, afterLogout] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'portcullis',
    client_secret: 'a secret of the test, longer than it has to be',
    redirect_uris: [redirect],
    post_logout_redirect_uris: [afterLogout],
    response_types: ['code'],
    grant_types: ['authorization_code'],
  }],
  pkce: { required: () => true },
  claims: { openid: ['sub'], profile: ['groups'] },
  conformIdTokenClaims: false,
  cookies: { keys: ['a key of the test'] },
  features: {
    devInteractions: { enabled: true },
    introspection: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  async findAccount(_context, id) {
    return { accountId: id, claims: async () => ({ sub: id, groups: ['staff'] }) };
  },
});

provider.listen(Number(port), '127.0.0.1', () => console.log(`ready ${issuer}`));
