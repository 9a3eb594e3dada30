// CMCD as a player's library encodes it, read by the edge field by field as the library decodes it.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { appendCmcdHeaders, appendCmcdQuery, CMCD_V1, CMCD_V2, fromCmcdHeaders, fromCmcdUrl } from "@svta/cml-cmcd";
import { SfItem, SfToken } from "@svta/cml-structured-field-values";
import { addTrack, call, mediaFile, openSegue } from "./segue.mjs";

/** Requests of each version, half of them with a query and half with headers. */
const EACH = 60;
const FACTS_MS = 60_000;
/** The custom key by which a fact is known. */
const NUMBER = "com.segue-n";

let segue;
let folder;
let segments;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "segue-cmcd-"));
  segue = await openSegue();
  const track = await addTrack(segue, await mediaFile(folder));
  const { url } = await call(segue, "POST", `/v1/tracks/${track.track}/tickets`, { sid: "cmcd" });
  const lines = async (from) => (await (await fetch(from)).text()).split("\n").filter((line) => line && !line.startsWith("#"));
  const [media] = (await lines(url)).map((line) => new URL(line, url));
  segments = (await lines(media)).map((line) => new URL(line, media));
  assert.ok(segments.length > 1);
});

after(async () => {
  await segue?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A generator that anybody can run again (mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const chance = random(2026);
const whole = (most) => Math.floor(chance() * most);
const one = (of) => of[whole(of.length)];
const text = (most) => Array.from({ length: 1 + whole(most) }, () => String.fromCharCode(32 + whole(95))).join("");
const item = (value, params) => (chance() < 0.5 ? new SfItem(value, params) : value);
const rates = () => Array.from({ length: 1 + whole(3) }, () => item(whole(20_000), { [one(["v", "a", "tt"])]: true }));

/** What a player might say: every key now and then. */
function said(number, version) {
  const values = {
    br: () => (version === CMCD_V1 ? whole(20_000) : rates()),
    bl: () => (version === CMCD_V1 ? whole(60_000) : rates()),
    mtp: () => (version === CMCD_V1 ? whole(90_000) : rates()),
    tb: () => (version === CMCD_V1 ? whole(20_000) : rates()),
    bs: () => true,
    cid: () => text(60),
    d: () => whole(9000),
    dl: () => whole(20_000),
    nor: () => (version === CMCD_V1 ? "../seg 2,ä.m4s" : [item("seg-2.m4s", { r: "0-99" })]),
    nrr: () => `${whole(99)}-${100 + whole(99)}`,
    ot: () => one(["m", "a", "v", "av", "i", "c", "tt", "k", "o"]),
    pr: () => one([0, 0.5, 1, 1.25, 2]),
    rtp: () => whole(90_000),
    sf: () => one(["d", "h", "s", "o"]),
    sid: () => text(40),
    st: () => one(["v", "l"]),
    su: () => true,
    sta: () => one(["s", "p", "k", "r", "a"]),
    bg: () => true,
    ltc: () => whole(9000),
    msd: () => whole(3000),
    pb: () => rates(),
    sn: () => whole(100_000),
    ec: () => [text(8), text(8)],
    cdn: () => text(12),
    "com.example-text": () => text(30),
    "com.example-number": () => whole(2_000_000) - 1_000_000,
    "com.example-decimal": () => Math.round(chance() * 1e6) / 1e3,
    "com.example-flag": () => true,
    "com.example-token": () => new SfToken("a/b:c"),
  };
  const chosen = Object.entries(values).filter(() => chance() < 0.4);
  return Object.fromEntries([...chosen.map(([key, value]) => [key, value()]), [NUMBER, number]]);
}

/** A decoded value as JSON has it. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "symbol") return Symbol.keyFor(value) ?? value.description;
  if (value instanceof SfToken) return value.description;
  if (value instanceof SfItem) {
    const params = Object.entries(value.params ?? {}).map(([key, param]) => [key, plain(param)]);
    return params.length ? { value: plain(value.value), params: Object.fromEntries(params) } : plain(value.value);
  }
  return value;
}

/** The facts of this test's session as they are counted, by their number. */
async function* facts(signal) {
  const response = await fetch(new URL("/v1/events?topics=facts", segue.control), {
    headers: { authorization: `Bearer ${segue.token}` },
    signal,
  });
  assert.equal(response.status, 200);
  let rest = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + piece).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data && event.includes("event: fact")) yield JSON.parse(data.slice(6));
    }
  }
}

test("what the library encodes is read as the library decodes it", async () => {
  const wanted = new Map();
  const following = facts(AbortSignal.timeout(FACTS_MS));
  const first = following.next();
  let keys = 0;
  for (let number = 0; number < EACH * 2; number += 1) {
    const version = number % 2 ? CMCD_V1 : CMCD_V2;
    const cmcd = said(number, version);
    const url = one(segments).href;
    let decoded;
    let response;
    if (whole(2)) {
      const target = appendCmcdQuery(url, cmcd, { version });
      decoded = fromCmcdUrl(target);
      response = await fetch(target);
    } else {
      const headers = appendCmcdHeaders({}, cmcd, { version });
      decoded = fromCmcdHeaders(headers);
      response = await fetch(url, { headers });
    }
    assert.equal(response.status, 200);
    await response.arrayBuffer();
    const fields = Object.fromEntries(Object.entries(decoded).map(([key, value]) => [key, plain(value)]));
    keys += Object.keys(fields).length;
    wanted.set(number, fields);
  }
  assert.ok(keys > EACH * 8, `only ${keys} fields were said`);
  for (let next = await first; wanted.size; next = await following.next()) {
    assert.ok(!next.done, `${wanted.size} facts did not come`);
    const { cmcd } = next.value;
    const fields = cmcd && wanted.get(cmcd[NUMBER]);
    if (!fields) continue;
    assert.deepEqual(cmcd, fields, `request ${cmcd[NUMBER]}`);
    wanted.delete(cmcd[NUMBER]);
  }
  await following.return();
});
