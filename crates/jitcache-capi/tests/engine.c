/* An engine with code that was assembled by hand: the first process compiles and stores, the next one loads. */
#include "jitcache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compilations;

static int doubled(int x) { return 2 * x; }

static const void *resolve(void *data, const char *name) {
    (void)data;
    return strcmp(name, "doubled") == 0 ? (const void *)doubled : NULL;
}

static void on_event(void *data, const jitcache_key *key, const char *text, bool is_trouble) {
    (void)data;
    printf("%02x..: %s%s\n", key->bytes[0], is_trouble ? "trouble: " : "", text);
}

/* main(x) = doubled(x) + 1 */
static int32_t compile(void *data, jitcache_builder *builder) {
    jitcache_place place, at = {JITCACHE_PART_CODE, 0};
    compilations++;
    if (strcmp(data, "fails") == 0) return 7;
    if (jitcache_builder_import(builder, "doubled", &place) != 0) return 1;
#if defined(__x86_64__)
    /* sub rsp, 8; call doubled; add eax, 1; add rsp, 8; ret */
    static const uint8_t code[] = {0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x83, 0xc0, 1, 0x48, 0x83, 0xc4, 8, 0xc3};
    at.at = 5;
    jitcache_builder_relocate(builder, at, JITCACHE_RELOCATION_X86_CALL_PC_REL4, place, -4);
#elif defined(__aarch64__)
    /* stp x29, x30, [sp, -16]!; bl doubled; add w0, w0, 1; ldp x29, x30, [sp], 16; ret */
    static const uint32_t code[] = {0xa9bf7bfd, 0x94000000, 0x11000400, 0xa8c17bfd, 0xd65f03c0};
    at.at = 4;
    jitcache_builder_relocate(builder, at, JITCACHE_RELOCATION_ARM64_CALL, place, 0);
#else
#error no code for this machine
#endif
    if (strcmp(data, "wrong") == 0) jitcache_builder_relocate(builder, at, 99, at, 0);
    jitcache_builder_code(builder, (const uint8_t *)code, sizeof code);
    jitcache_builder_source(builder, 0, 100);
    return (int32_t)jitcache_builder_function_named(builder, 0, sizeof code, "main");
}

static void check(uint32_t number, const char *what) {
    if (number != 0) {
        printf("%s: %u: %s\n", what, (unsigned)number, jitcache_error_text());
        exit(1);
    }
}

int main(int count, char **arguments) {
    const char *source = "main(x) = doubled(x) + 1";
    jitcache_options options = {0};
    jitcache_identity *identity;
    jitcache_key_builder *builder;
    jitcache_cache *cache;
    jitcache_module *module;
    jitcache_location location;
    jitcache_key key;
    const uint8_t *code;
    size_t length;

    if (count != 2) return 2;
    check(jitcache_identity_new("cengine", (const uint8_t *)"CENGIN", "1.0", &identity), "identity");
    check(jitcache_identity_set_build_id(identity, (const uint8_t *)"build", 5), "build id");
    if (jitcache_identity_set_cpu(identity, "x86-64-v9") == 0) return 3;
    check(jitcache_identity_set_cpu(identity, "baseline"), "cpu");
    options.on_event = on_event;
    options.resolve = resolve;
    options.budget = 1 << 20;
    options.write_behind = 1 << 16;
    check(jitcache_cache_open(arguments[1], identity, &options, &cache), "open");

    builder = jitcache_key_of(identity);
    jitcache_key_source(builder, (const uint8_t *)source, strlen(source));
    check(jitcache_key_flag(builder, "opt", "2"), "flag");
    key = jitcache_key_finish(builder);

    module = jitcache_get(cache, &key);
    if (module == NULL) check(jitcache_get_or_compile(cache, &key, compile, "", &module), "compile");
    if (jitcache_flush(cache) != (uint64_t)compilations) return 10;
    printf("compiled %d times: %zu function\n", compilations, jitcache_module_functions(module));
    printf("main(20) = %d\n", ((int (*)(int))jitcache_module_function(module, 0))(20));
    if (jitcache_module_symbol(module, "main") != jitcache_module_function(module, 0)) return 4;
    if (jitcache_module_function(module, 1) != NULL) return 5;
    code = jitcache_module_code(module, &length);
    if (!jitcache_locate(cache, code + 2, false, &location) || location.function != 0 || location.code != 2) return 6;
    if (!location.has_source || location.source != 100) return 7;
    if (jitcache_locate(cache, &count, false, &location)) return 8;

    key.bytes[0] ^= 1;
    jitcache_module *none;
    if (jitcache_get_or_compile(cache, &key, compile, "fails", &none) != JITCACHE_NOT_COMPILED) return 9;
    printf("another: %s\n", jitcache_error_text());
    if (jitcache_get_or_compile(cache, &key, compile, "wrong", &none) == 0) return 11;
    key.bytes[0] ^= 1;

    jitcache_cache_free(cache);
    printf("main(4) = %d\n", ((int (*)(int))jitcache_module_function(module, 0))(4));
    jitcache_module_free(module);
    jitcache_identity_free(identity);
    return 0;
}
