// Somebody's signed URLs: `?expires=…&sig=…`, where `sig` is hex of HMAC-SHA256 over the path, a line end and `expires`. Make of it
// the scheme that your URLs are signed by.
//
// Configuration: `key`, the name of the secret in the edge's `[policies.keys]`.
import crypto from 'segue:policy/crypto@0.1.0';
import request from 'segue:policy/request@0.1.0';

let key;

export function configure(text) {
  ({ key } = JSON.parse(text));
  if (typeof key !== 'string') throw '`key` is missing: the name of the secret';
}

// There is no TextEncoder in here.
const bytes = (text) => {
  const escaped = encodeURIComponent(text).match(/%..|[^%]/g) ?? [];
  return new Uint8Array(escaped.map((part) => (part.length > 1 ? parseInt(part.slice(1), 16) : part.charCodeAt(0))));
};

const mac = (path, expires) =>
  Array.from(crypto.hmac('sha256', key, bytes(`${path}\n${expires}`)), (byte) => byte.toString(16).padStart(2, '0')).join('');

// Called on the edge, for a request that shows no ticket of Segue's own. What is thrown is the refusal.
export function verify(moment) {
  const pairs = (request.query() ?? '').split('&').map((pair) => pair.split('='));
  // A parameter that is there twice is refused: which one would count?
  const once = (name) => {
    const values = pairs.filter(([key]) => key === name).map(([, ...rest]) => rest.join('='));
    if (values.length > 1) throw 'malformed';
    return values[0];
  };
  const given = once('sig');
  if (given === undefined) throw 'absent';
  const expires = once('expires');
  if (!/^[0-9]{1,15}$/.test(expires ?? '')) throw 'malformed';
  const path = request.path();
  let expected;
  try {
    expected = mac(path, expires);
  } catch {
    throw 'key-unknown';
  }
  if (!crypto.equal(bytes(given), bytes(expected))) throw 'signature-invalid';
  if (Number(moment.nowMs) / 1000 >= Number(expires)) throw 'expired';
  let scope;
  try {
    scope = decodeURIComponent(path);
  } catch {
    throw 'malformed';
  }
  const nothing = { notBefore: null, session: null, listener: null, context: null, path: null };
  return { scope, expires: Number(expires), ...nothing, parameters: ['sig', 'expires'] };
}

// Called in the control plane and the command: makes a URL that `verify` accepts. What is thrown is told to whoever asked.
export function sign(grant) {
  const [, origin, path, query] = /^([a-z]+:\/\/[^/]+)(\/[^?#]*)(?:\?([^#]*))?/.exec(grant.url) ?? [];
  if (path === undefined) throw 'the URL is not absolute';
  if (grant.scope != null) throw 'this scheme signs one path';
  const expires = String(grant.expires);
  return `${origin}${path}?${query ? `${query}&` : ''}expires=${expires}&sig=${mac(path, expires)}`;
}
