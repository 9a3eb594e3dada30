// The rate limit fields of a refusal, as a reader of structured fields (RFC 9651) sees them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseList } from "structured-headers";

const { SEGUE_RATELIMIT, SEGUE_RATELIMIT_POLICY, SEGUE_RETRY_AFTER } = process.env;

test("RateLimit and RateLimit-Policy are lists of named items", () => {
  const [[name, limit]] = parseList(SEGUE_RATELIMIT);
  const [[policyName, policy]] = parseList(SEGUE_RATELIMIT_POLICY);
  assert.equal(name, "tracks");
  assert.equal(policyName, name, "the limit names its policy");
  assert.equal(limit.get("r"), 0);
  assert.equal(limit.get("t"), Number(SEGUE_RETRY_AFTER));
  assert.equal(policy.get("q"), 3);
  assert.equal(policy.get("w"), 3000);
  assert.equal(policy.get("pk").byteLength, 6);
  assert.deepEqual(new Uint8Array(policy.get("pk")), new Uint8Array(limit.get("pk")), "one partition");
});
