"""What Schemathesis has to be told to speak to a control plane: two media types, and how long a long poll may be."""

import itertools
import re

import schemathesis

# Milliseconds. A long poll is answered when its wait is over, and thousands of requests are sent.
WAIT_MAX = 20


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    # The document says: text. What is sent for something else must be no text, or it would be right.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b"\xff\xfe"


@schemathesis.deserializer("application/wasm")
def component(ctx, response):
    return response.content


# A key as the document has it, and what numbers those that are sent.
KEY = re.compile(r'[!#-\[\]-~]{1,255}|"[!#-\[\]-~]{1,255}"')
KEYS = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Shortens waits that are valid and gives each request an Idempotency-Key of its own, since one that comes again is answered for the
    request before. What is not valid goes as it is, to be refused."""
    key = (case.headers or {}).get("Idempotency-Key")
    # A case without a token must stay one: with a header that was changed here, those that all requests have would come back.
    about = getattr(getattr(case.meta, "phase", None), "data", None)
    is_without = (getattr(about, "parameter", None) or "").lower() == "authorization"
    if isinstance(key, str) and KEY.fullmatch(key) and not is_without:
        case.headers["Idempotency-Key"] = f"request-{next(KEYS)}"
    for fields in (case.query, case.body):
        if isinstance(fields, dict):
            wait = fields.get("wait_ms")
            if isinstance(wait, int) and not isinstance(wait, bool) and WAIT_MAX < wait < 2**64:
                fields["wait_ms"] = WAIT_MAX
