/* What a policy in C is written with: the contract's world `access` (policies/wit/segue-policy.wit) as a compiler for
 * wasm32 sees it, without a C library. The host makes a component of the module.
 *
 * A policy defines `configure` and `authorize`, and says SEGUE_POLICY once. Memory is handed out from one region that each call begins anew; what must
 * outlive `configure` is taken by `keep`.
 *
 * Layouts and flattened parameters are those of the component model's canonical ABI: a record lies in memory as a struct of the
 * same order, a list or string as pointer and length, an option or variant as a byte and then its value.
 */
#ifndef SEGUE_POLICY_H
#define SEGUE_POLICY_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;
#define true 1
#define false 0

/* Text that knows its length and no end. */
typedef struct {
    const char *at;
    u32 length;
} text;

#define TEXT(literal) ((text){(literal), sizeof(literal) - 1})

/* ---- memory: 64 KiB for what lasts, 256 KiB for a call ---- */

static u8 segue_kept[64 << 10] __attribute__((aligned(16)));
static u32 segue_kept_used;
static u8 segue_lent[256 << 10] __attribute__((aligned(16)));
static u32 segue_lent_used;

static void *segue_take(u8 *region, u32 size, u32 *used, u32 align, u32 bytes) {
    u32 at = (*used + align - 1) & ~(align - 1);
    /* Memory that is not there ends the call: the host names it a trap, and serves on. */
    if (align > 16 || at > size || bytes > size - at) __builtin_trap();
    *used = at + bytes;
    return region + at;
}

/* Memory for this call. */
static inline void *lend(u32 bytes) { return segue_take(segue_lent, sizeof segue_lent, &segue_lent_used, 16, bytes); }

/* A copy that stays: for `configure`. */
static inline text keep(text from) {
    char *to = segue_take(segue_kept, sizeof segue_kept, &segue_kept_used, 1, from.length);
    __builtin_memcpy(to, from.at, from.length);
    return (text){to, from.length};
}

/* The host puts strings here: parameters before a call, answers of its functions in one. */
__attribute__((export_name("cabi_realloc"))) void *segue_realloc(void *old, u32 old_size, u32 align, u32 size) {
    void *fresh = segue_take(segue_lent, sizeof segue_lent, &segue_lent_used, align ? align : 1, size);
    if (old) __builtin_memcpy(fresh, old, old_size < size ? old_size : size);
    return fresh;
}

static inline bool equal(text a, text b) { return a.length == b.length && !__builtin_memcmp(a.at, b.at, a.length); }

/* Without a library these two are ours, for the compiler's own use. */
void *memcpy(void *restrict to, const void *restrict from, unsigned long count) {
    for (unsigned long at = 0; at < count; at++) ((u8 *)to)[at] = ((const u8 *)from)[at];
    return to;
}
int memcmp(const void *a, const void *b, unsigned long count) {
    for (unsigned long at = 0; at < count; at++)
        if (((const u8 *)a)[at] != ((const u8 *)b)[at]) return ((const u8 *)a)[at] < ((const u8 *)b)[at] ? -1 : 1;
    return 0;
}

/* ---- the contract ---- */

enum kind { MASTER, PLAYLIST, INIT, SEGMENT, KEY, OTHER };

typedef struct {
    u64 now_ms;
    enum kind kind;
    bool has_pos, has_media;
    u64 pos_ms;
    u32 media_ms;
} moment;

typedef struct {
    text class, key;
} limit;

typedef struct {
    u8 tag; /* 0 allow, 1 deny, 2 abstain */
    union {
        struct {
            const limit *limits;
            u32 limit_count;
            u8 has_streams;
            limit streams;
            const text *tags;
            u32 tag_count;
        } allow;
        struct {
            u16 status;
            text reason;
            u8 has_redirect;
            text redirect;
            const text (*headers)[2];
            u32 header_count;
        } deny;
    };
} verdict;

static inline verdict abstain(void) { return (verdict){.tag = 2}; }

static inline verdict deny(u16 status, text reason) {
    return (verdict){.tag = 1, .deny = {.status = status, .reason = reason}};
}

/* The names of the texts that `authorize` is given; or, with `error`, why the configuration is refused. */
typedef struct {
    u8 refused;
    union {
        struct {
            const text *names;
            u32 count;
        } fields;
        text error;
    };
} configured;

static inline configured refuse(text why) { return (configured){.refused = 1, .error = why}; }

/* These two are the policy. */
static configured configure(text config);
static verdict authorize(const moment *moment, text fields);

/* The field at this place; false where the request has none (see `authorize` in the contract). */
static inline bool field(text fields, u32 place, text *value) {
    u32 from = 0;
    for (u32 at = 0;; at++) {
        if (at < fields.length && fields.at[at] != '\x1f') continue;
        if (!place--) {
            *value = (text){fields.at + from, at - from};
            return !(value->length == 1 && !value->at[0]);
        }
        if (at >= fields.length) return false;
        from = at + 1;
    }
}

/* A header, a claim, a value of `ctx`: what is needed only sometimes. Each answers an option: a byte, then the text. */
typedef struct {
    u8 there;
    text value;
} maybe;
__attribute__((import_module("segue:policy/request@0.1.0"), import_name("header"))) void request_header(const char *, u32, maybe *);
__attribute__((import_module("segue:policy/request@0.1.0"), import_name("claim"))) void request_claim(const char *, u32, maybe *);
__attribute__((import_module("segue:policy/request@0.1.0"), import_name("context"))) void request_context(const char *, u32, maybe *);
__attribute__((import_module("segue:policy/tools@0.1.0"), import_name("lookup"))) void tools_lookup(const char *, u32, const char *, u32, maybe *);
__attribute__((import_module("segue:policy/tools@0.1.0"), import_name("log"))) void tools_log(u32 level, const char *, u32);

/* ---- what the host calls ---- */

#define SEGUE_POLICY                                                                                                     \
    __attribute__((export_name("configure"))) configured *segue_configure(const char *config, u32 length) {              \
        static configured answer;                                                                                        \
        answer = configure((text){config, length});                                                                      \
        return &answer;                                                                                                  \
    }                                                                                                                    \
    __attribute__((export_name("authorize"))) verdict *segue_authorize(u64 now_ms, u32 kind, u32 has_pos, u64 pos_ms,    \
                                                                       u32 has_media, u32 media_ms, const char *fields,  \
                                                                       u32 length) {                                     \
        static verdict answer;                                                                                           \
        moment now = {now_ms, (enum kind)kind, has_pos, has_media, pos_ms, media_ms};                                    \
        answer = authorize(&now, (text){fields, length});                                                                \
        return &answer;                                                                                                  \
    }                                                                                                                    \
    /* The host has read the answer: what was lent may be lent again. */                                                \
    __attribute__((export_name("cabi_post_configure"))) void segue_configured(void *answer) { segue_lent_used = 0; }     \
    __attribute__((export_name("cabi_post_authorize"))) void segue_authorized(void *answer) { segue_lent_used = 0; }

/* Puts test vectors into the policy, so that they travel with it: SEGUE_VECTORS("vectors.json") */
#define SEGUE_VECTORS(file) __asm__(".section \".custom_section.segue:vectors\",\"\",@\n.incbin \"" file "\"\n");

/* ---- JSON, as much as a flat configuration needs ---- */

/* Whether a flat object of texts (`{"class": "h"}`) has this member. `false` where it is not there; `*bad` where the whole is not
 * such an object: a number, a list or an escape in it is more than this reads. */
static bool json_text(text object, text name, text *value, bool *bad) {
    u32 at = 0;
    bool found = false;
#define SPACE while (at < object.length && (object.at[at] == ' ' || object.at[at] == '\n' || object.at[at] == '\t' || object.at[at] == '\r')) at++
#define NEED(letter)                                                                \
    SPACE;                                                                          \
    if (at >= object.length || object.at[at] != (letter)) return *bad = true, false; \
    at++
#define STRING(into)                                                                         \
    NEED('"');                                                                               \
    (into).at = object.at + at;                                                              \
    while (at < object.length && object.at[at] != '"' && object.at[at] != '\\') at++;        \
    (into).length = (u32)(object.at + at - (into).at);                                       \
    if (at >= object.length || object.at[at] != '"') return *bad = true, false;              \
    at++
    NEED('{');
    SPACE;
    if (at < object.length && object.at[at] == '}') return false;
    for (;;) {
        text key, content;
        STRING(key);
        NEED(':');
        STRING(content);
        if (equal(key, name)) {
            if (found) return *bad = true, false;
            found = true;
            *value = content;
        }
        SPACE;
        if (at < object.length && object.at[at] == ',') {
            at++;
            continue;
        }
        NEED('}');
        SPACE;
        if (at != object.length) return *bad = true, false;
        return found;
    }
#undef SPACE
#undef NEED
#undef STRING
}

#endif
