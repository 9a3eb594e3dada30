// What the scheme `cat` is held against: @eyevinn/cat. It reads and answers as originals.py does, with the library as the maker
// and as the judge. Config and keys are those of a vector; `now` is the real one, since the library knows no other.
import { createInterface } from 'node:readline';
import cat from '@eyevinn/cat';

const secret = ({ config, keys }, kid) => {
  const text = keys[config.keys[kid]];
  return text.startsWith('hex:') ? Buffer.from(text.slice(4), 'hex') : Buffer.from(text);
};
const library = (asked) => {
  const { kid } = asked.config;
  return new cat.CAT({ keys: { [kid]: secret(asked, kid) }, expectCwtTag: true });
};
const list = (text) => text.split(',');

async function make(asked) {
  const { grant, config } = asked;
  const options = Object.fromEntries(grant.options ?? []);
  const url = new URL(grant.url);
  // The version last makes another token of the same claims: the library writes it where it stands, or at the end.
  const claims = { exp: grant.expires, catv: 1 };
  if (options.sub) claims.sub = options.sub;
  if (options.iss) claims.iss = options.iss;
  if (options.aud) claims.aud = options.aud.includes(',') ? list(options.aud) : options.aud;
  if (grant.not_before) claims.nbf = grant.not_before;
  if (grant.session) claims.cti = Buffer.from(grant.session).toString('hex');
  if (grant.address) claims.catnip = [grant.address];
  claims.catu = {};
  if (options.host) claims.catu.host = { 'exact-match': url.hostname };
  claims.catu.path = grant.scope ? { 'prefix-match': grant.scope } : { 'exact-match': url.pathname };
  if (options.catm) claims.catm = list(options.catm);
  if (options.catgeoiso3166) claims.catgeoiso3166 = list(options.catgeoiso3166);
  // Claims that only a library makes, for what the scheme must refuse or let be.
  Object.assign(claims, asked.more ?? {});
  const how = { type: 'mac', alg: asked.algorithm ?? 'HS256', kid: config.kid };
  url.searchParams.append(config.parameter ?? 'CAT', await library(asked).generateFromJson(claims, how));
  return { url: url.href };
}

async function accepts(asked, altered) {
  const { config, grant } = asked;
  const name = config.parameter ?? 'CAT';
  const url = new URL(asked.url);
  if (altered) url.pathname = `/x${url.pathname}`;
  const options = Object.fromEntries(grant.options ?? []);
  // The library takes off a parameter named `cat` alone.
  const token = url.searchParams.get(name);
  url.searchParams.delete(name);
  const result = await library(asked).validate(token, 'mac', {
    issuer: options.iss,
    audience: options.aud && list(options.aud),
    url,
    ip: grant.address?.split('/')[0],
  });
  return !result.error && result.cat !== undefined;
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const answer =
    asked.do === 'make' ? await make(asked) : { accepted: await accepts(asked, false), altered: await accepts(asked, true) };
  console.log(JSON.stringify(answer));
}
