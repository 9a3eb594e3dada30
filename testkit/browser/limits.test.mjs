// The rate limit fields of a refusal, as a reader of structured fields (RFC 9651) sees them, held against the rules of
// draft-ietf-httpapi-ratelimit-headers-11: sections 3.1 (RateLimit-Policy), 4.1 (RateLimit) and 6 (Retry-After).
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseList } from "structured-headers";

const { SEGUE_RATELIMIT, SEGUE_RATELIMIT_POLICY, SEGUE_RETRY_AFTER } = process.env;
const UNITS = ["requests", "content-bytes", "concurrent-requests"];

const count = (value, least = 0) => Number.isSafeInteger(value) && value >= least;

test("RateLimit and RateLimit-Policy are lists of named items", () => {
  const limits = parseList(SEGUE_RATELIMIT);
  const policies = parseList(SEGUE_RATELIMIT_POLICY);
  assert.equal(limits.length, 1);
  assert.equal(policies.length, 1);
  const [[name, limit]] = limits;
  const [[policyName, policy]] = policies;
  assert.equal(typeof policyName, "string", "a String, and no Token");
  assert.equal(name, policyName, "the limit names its policy");

  assert.equal(limit.get("r"), 0, "nothing is left: this is a refusal");
  assert.ok(count(limit.get("t"), 1));
  assert.ok(Number(SEGUE_RETRY_AFTER) >= limit.get("t"), "Retry-After lies no earlier than the window's end");

  assert.ok(count(policy.get("q"), 1));
  if (policy.has("w")) assert.ok(count(policy.get("w"), 1), "seconds, and not none");
  if (policy.has("qu")) assert.ok(UNITS.includes(policy.get("qu")), "a registered unit");
  assert.notEqual(policy.has("w"), policy.get("qu") === "concurrent-requests", "places have no window, requests have one");

  for (const key of [limit.get("pk"), policy.get("pk")]) assert.equal(key.byteLength, 6, "a Byte Sequence");
  assert.deepEqual(new Uint8Array(policy.get("pk")), new Uint8Array(limit.get("pk")), "one partition");
  for (const [item, known] of [[limit, ["r", "t", "pk"]], [policy, ["q", "qu", "w", "pk"]]]) {
    for (const parameter of item.keys()) assert.ok(known.includes(parameter), `${parameter} is none of the draft's`);
  }
});
