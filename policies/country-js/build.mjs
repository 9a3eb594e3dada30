// Makes a policy of policy.js and vectors.json:   node build.mjs [OUT.wasm]
//
// The interpreter (QuickJS) goes into the file, already started. It is built without WASI, which a host of policies does not give: what would need it
// (Date.now, Math.random, console) traps. The time of a request is `moment.nowMs`.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import qjs from 'componentize-qjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const wit = ['../wit', 'wit'].map(here).find(existsSync);

const { component } = await qjs.componentize({
  witPath: wit,
  world: 'access',
  jsPath: here('policy.js'),
  jsSource: readFileSync(here('policy.js'), 'utf8'),
  stubWasi: true,
  sync: true,
});

// A custom section: 0, its size, then its name and what it holds (WebAssembly core specification, section 5.5.3).
const leb128 = (number) => (number < 128 ? [number] : [(number & 127) | 128, ...leb128(number >> 7)]);
const name = Buffer.from('segue:vectors');
const section = Buffer.concat([Buffer.from(leb128(name.length)), name, readFileSync(here('vectors.json'))]);
const out = process.argv[2] ?? here('policy.wasm');
writeFileSync(out, Buffer.concat([component, Buffer.from([0, ...leb128(section.length)]), section]));
