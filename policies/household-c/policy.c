/* One household, one stream, in C: names the streams class, and whom it counts; the edge does the counting.
 *
 * It is `policies/household` once more, with the same configuration and the same vectors, so that the two can be laid side by side:
 * `class = "household"`, `by = "context:/household"` (the default), `missing = "allow"` (the default) or `"deny"`.
 */
#include "../kit-c/segue_policy.h"

static text class_name, fields_wanted[1];
static bool deny_missing;

static configured configure(text config) {
    bool bad = false;
    text missing = TEXT("allow");
    fields_wanted[0] = TEXT("context:/household");
    bool has_class = json_text(config, TEXT("class"), &class_name, &bad);
    json_text(config, TEXT("by"), &fields_wanted[0], &bad);
    json_text(config, TEXT("missing"), &missing, &bad);
    if (bad) return refuse(TEXT("write texts only, without escapes: class, by, missing"));
    if (!has_class) return refuse(TEXT("missing field `class`: the name of a [streams.…] of the edge's"));
    deny_missing = equal(missing, TEXT("deny"));
    if (!deny_missing && !equal(missing, TEXT("allow"))) return refuse(TEXT("`missing` is \"allow\" or \"deny\""));
    if (!class_name.length || class_name.length > 64) return refuse(TEXT("`class` has 1 to 64 letters"));
    for (u32 at = 0; at < class_name.length; at++)
        if (class_name.at[at] <= ' ' || class_name.at[at] > '~') return refuse(TEXT("`class` has 1 to 64 letters"));
    class_name = keep(class_name);
    fields_wanted[0] = keep(fields_wanted[0]);
    return (configured){.fields = {fields_wanted, 1}};
}

static verdict authorize(const moment *moment, text fields) {
    text key;
    if (moment->kind != SEGMENT) return abstain();
    if (field(fields, 0, &key) && key.length)
        return (verdict){.tag = 0, .allow = {.has_streams = 1, .streams = {class_name, key}}};
    return deny_missing ? deny(403, TEXT("household")) : abstain();
}

SEGUE_POLICY
SEGUE_VECTORS("vectors.json")
