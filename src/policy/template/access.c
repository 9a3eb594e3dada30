/* Plays from an hour on, but for those with a plan. Make a rule of your own of it.
 *
 * Configuration: `from_hour = "18"`, the hour (UTC) from which everybody may listen. (A text: that is what `json_text` reads.)
 */
#include "segue_policy.h"

static u32 from_hour;
/* What the rule wants to be given with each request, in this order. */
static text fields_wanted[1];

static configured configure(text config) {
    bool bad = false;
    text hour;
    bool there = json_text(config, TEXT("from_hour"), &hour, &bad);
    if (bad || !there || !hour.length || hour.length > 2) return refuse(TEXT("`from_hour` is a text of 0 to 23"));
    from_hour = 0;
    for (u32 at = 0; at < hour.length; at++) {
        if (hour.at[at] < '0' || hour.at[at] > '9') return refuse(TEXT("`from_hour` is a text of 0 to 23"));
        from_hour = from_hour * 10 + (u32)(hour.at[at] - '0');
    }
    if (from_hour > 23) return refuse(TEXT("`from_hour` is a text of 0 to 23"));
    fields_wanted[0] = TEXT("context:/plan");
    return (configured){.fields = {fields_wanted, 1}};
}

static verdict authorize(const moment *moment, text fields) {
    text plan;
    u32 hour = (u32)(moment->now_ms / 3600000 % 24);
    return field(fields, 0, &plan) || hour >= from_hour ? abstain() : deny(403, TEXT("too-early"));
}

SEGUE_POLICY
SEGUE_VECTORS("vectors.json")
