// Lets in, or keeps out, by country, in JavaScript.
//
// It is `policies/country` once more, with the same configuration and the same vectors, so that the two can be laid side by side:
// `allow = ["DE", "AT"]` or `deny = ["KP"]`, not both; `unknown = "deny"` (the default) or `"allow"`; `redirect = "/blocked.m3u8"`.
//
// What is thrown in `configure` is told to the operator. In `authorize` it ends the call as a trap; the fail mode then decides.

let config;

export function configure(text) {
  const { allow = [], deny = [], unknown = 'deny', redirect, ...rest } = JSON.parse(text);
  const [foreign] = Object.keys(rest);
  if (foreign) throw `unknown field ${foreign}; there are allow, deny, unknown and redirect`;
  if (!Array.isArray(allow) || !Array.isArray(deny) || (allow.length === 0) === (deny.length === 0)) {
    throw 'name countries under `allow` or under `deny`, and not under both';
  }
  const wrong = [...allow, ...deny].find((code) => !/^[A-Z]{2}$/.test(code));
  if (wrong !== undefined) throw `${wrong} is no country; write ISO 3166-1 alpha-2 in capitals, such as "DE"`;
  if (unknown !== 'deny' && unknown !== 'allow') throw '`unknown` is "deny" or "allow"';
  config = { allow: allow.length > 0 ? new Set(allow) : undefined, deny: new Set(deny), unknown, redirect };
  // The texts that `authorize` is given.
  return ['country'];
}

export function authorize(moment, fields) {
  const [country] = fields.split('\x1f').map((field) => (field === '\0' ? undefined : field));
  if (isWelcome(country)) return { tag: 'abstain' };
  const { redirect } = config;
  return { tag: 'deny', val: { status: redirect ? 302 : 451, reason: 'country', redirect: redirect ?? null, headers: [] } };
}

function isWelcome(country) {
  if (country === undefined) return config.unknown === 'allow';
  return config.allow ? config.allow.has(country) : !config.deny.has(country);
}
