/*
 The cache of compiled machine code, for engines in C. Made by the test of crates/jitcache-capi from its sources.

 Handles belong to whoever got them until they are freed; that of a builder belongs to the cache that calls for it. What
 may fail returns 0, or a number that never changes, of which jitcache_error_text() has the text in the same thread.

 # Safety

 What holds of every function: a pointer to a handle is one that a function here gave out and that was not freed; text
 is UTF-8 and ends with a zero; pointers beside a length lead to so many bytes, and may be null if it is 0; a pointer to
 a result may be written to. A handle may be used by several threads at once if it is of a cache or a module.
 */

#ifndef JITCACHE_H
#define JITCACHE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 The function that compiles returned another number than 0, or is null.
 */
#define JITCACHE_NOT_COMPILED 1000

/*
 Something panicked: a defect of this library.
 */
#define JITCACHE_PANICKED 1001

/*
 A text is not UTF-8.
 */
#define JITCACHE_NOT_TEXT 1002

/*
 Parts of what lies together in memory once it is loaded.
 */
typedef enum jitcache_part {
  /*
   The code.
   */
  JITCACHE_PART_CODE,
  /*
   Data that nobody writes to.
   */
  JITCACHE_PART_READ_ONLY,
  /*
   Data that the code may write to.
   */
  JITCACHE_PART_WRITABLE,
  /*
   What the engine calls by a name.
   */
  JITCACHE_PART_IMPORT,
} jitcache_part;

/*
 How an address is written, as the library's `RelocationKind` has it.
 */
typedef enum jitcache_relocation {
  /*
   8 bytes, in data alone.
   */
  JITCACHE_RELOCATION_ABS8,
  /*
   4 bytes, relative to the place. Not of an import.
   */
  JITCACHE_RELOCATION_X86_PC_REL4,
  /*
   The same of a call, which reaches an import through a stub.
   */
  JITCACHE_RELOCATION_X86_CALL_PC_REL4,
  /*
   4 bytes, relative to the place, of a slot that holds the address.
   */
  JITCACHE_RELOCATION_X86_GOT_PC_REL4,
  /*
   `bl` and `b`, which reach an import through a stub.
   */
  JITCACHE_RELOCATION_ARM64_CALL,
  /*
   `adrp`, of the slot that holds the address.
   */
  JITCACHE_RELOCATION_ARM64_ADR_GOT_PAGE21,
  /*
   `ldr` of 8 bytes, of the slot that holds the address.
   */
  JITCACHE_RELOCATION_ARM64_LD64_GOT_LO12_NC,
  /*
   `adrp`. Not of an import.
   */
  JITCACHE_RELOCATION_ARM64_ADR_PREL_PG_HI21,
  /*
   `add`. Not of an import.
   */
  JITCACHE_RELOCATION_ARM64_ADD_ABS_LO12_NC,
} jitcache_relocation;

/*
 The parts of an entry, which belong to the cache that calls for them.
 */
typedef struct jitcache_builder jitcache_builder;

/*
 A cache of modules.
 */
typedef struct jitcache_cache jitcache_cache;

/*
 The engine that entries belong to.
 */
typedef struct jitcache_identity jitcache_identity;

/*
 A key in the making.
 */
typedef struct jitcache_key_builder jitcache_key_builder;

/*
 A module in memory, which stays until it is freed.
 */
typedef struct jitcache_module jitcache_module;

/*
 What an entry is named by.
 */
typedef struct jitcache_key {
  /*
   Its SHA-256.
   */
  uint8_t bytes[32];
} jitcache_key;

/*
 A place in a part: so many bytes behind its first one, or the number of an import.
 */
typedef struct jitcache_place {
  /*
   A `jitcache_part`. With any other number there is no such place, which finishing tells.
   */
  uint32_t part;
  /*
   Offset in bytes, or number of the import.
   */
  uint64_t at;
} jitcache_place;

/*
 What is called with every event: its text, and whether it is trouble. The text lives until it returns.
 */
typedef void (*jitcache_on_event)(void *data,
                                  const struct jitcache_key *key,
                                  const char *text,
                                  bool is_trouble);

/*
 Returns the address of what the engine calls by a name, or null.
 */
typedef const void *(*jitcache_resolve)(void *data, const char *name);

/*
 How a cache is opened. All zeros is what is usual.
 */
typedef struct jitcache_options {
  /*
   Whether a directory that cannot be opened leaves a cache in memory, which tells why by an event.
   */
  bool or_in_memory;
  /*
   Whether nothing is ever compiled or written: what is not there is an error.
   */
  bool is_strict;
  /*
   Bytes of code in memory above which modules go that nobody has; 0 for any number.
   */
  uint64_t memory_budget;
  /*
   Bytes that the entries of this engine may take in the directory, all its versions together; 0 for any number.
   */
  uint64_t budget;
  /*
   Bytes of compiled entries that may wait in memory for `jitcache_flush`; 0 if each is stored at once.
   */
  uint64_t write_behind;
  /*
   How long one waits for another thread or process that compiles, in milliseconds; 0 for ten seconds.
   */
  uint64_t patience;
  /*
   Told of every event, by whatever thread; may be null.
   */
  jitcache_on_event on_event;
  /*
   Has the addresses of imports; may be null if code imports nothing.
   */
  jitcache_resolve resolve;
  /*
   Handed to both.
   */
  void *data;
} jitcache_options;

/*
 Compiles into a builder, and returns 0, or a number that tells the engine why it could not.
 */
typedef int32_t (*jitcache_compile)(void *data, struct jitcache_builder *builder);

/*
 Where a program counter is.
 */
typedef struct jitcache_location {
  /*
   Index of the function, or `SIZE_MAX` for bytes in front of the first one.
   */
  size_t function;
  /*
   Offset in the code, in bytes.
   */
  uint64_t code;
  /*
   Offset in the source, if there `has_source`.
   */
  uint64_t source;
  /*
   Whether the source map has a row for it.
   */
  bool has_source;
} jitcache_location;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Returns the text of the last error in this thread, with what to do: until the next call of this library that fails.
 */
const char *jitcache_error_text(void);

/*
 Makes the identity of an engine that compiles for this machine: its name, six bytes that its entries begin with, and
 its version. It is to be freed by `jitcache_identity_free`.

 # Safety

 As told at the top; `magic` leads to six bytes.
 */
uint32_t jitcache_identity_new(const char *name,
                               const uint8_t *magic,
                               const char *version,
                               struct jitcache_identity **identity);

/*
 Has the compiler use no other features of the processor than those of a level, `x86-64-v1` to `x86-64-v4`, or
 `baseline`; otherwise it may use those of this machine.

 # Safety

 As told at the top.
 */
uint32_t jitcache_identity_set_cpu(struct jitcache_identity *identity, const char *level);

/*
 Ties entries to a build of the engine: a commit, say, or the id that the linker made.

 # Safety

 As told at the top.
 */
uint32_t jitcache_identity_set_build_id(struct jitcache_identity *identity, const uint8_t *id, size_t length);

/*
 Ties entries to the program that runs.

 # Safety

 As told at the top.
 */
uint32_t jitcache_identity_set_build_of_program(struct jitcache_identity *identity);

/*
 Seals entries with a MAC under a key of 32 bytes, that whoever may write to the directory must not know.

 # Safety

 As told at the top; `key` leads to 32 bytes.
 */
uint32_t jitcache_identity_set_mac_key(struct jitcache_identity *identity, const uint8_t *key);

/*
 Frees an identity; null is nothing.

 # Safety

 As told at the top.
 */
void jitcache_identity_free(struct jitcache_identity *identity);

/*
 Begins the key of something that an engine compiles. It is freed by `jitcache_key_finish`.

 # Safety

 As told at the top.
 */
struct jitcache_key_builder *jitcache_key_of(const struct jitcache_identity *identity);

/*
 Adds what is compiled to a key.

 # Safety

 As told at the top.
 */
void jitcache_key_source(struct jitcache_key_builder *key, const uint8_t *source, size_t length);

/*
 Adds a setting that changes the code to a key.

 # Safety

 As told at the top.
 */
uint32_t jitcache_key_flag(struct jitcache_key_builder *key, const char *name, const char *value);

/*
 Returns the key, and frees what it was made with.

 # Safety

 As told at the top.
 */
struct jitcache_key jitcache_key_finish(struct jitcache_key_builder *key);

/*
 Sets the machine code, which is copied.

 # Safety

 As told at the top.
 */
void jitcache_builder_code(struct jitcache_builder *builder, const uint8_t *code, size_t length);

/*
 Adds a function that starts `offset` bytes into the code. Offsets must rise.

 # Safety

 As told at the top.
 */
void jitcache_builder_function(struct jitcache_builder *builder, uint64_t offset);

/*
 Adds a function of that length, and names it.

 # Safety

 As told at the top.
 */
uint32_t jitcache_builder_function_named(struct jitcache_builder *builder,
                                         uint64_t offset,
                                         uint64_t length,
                                         const char *name);

/*
 Adds a row to the source map: the code from offset `code` on comes from `source`. Code offsets must rise.

 # Safety

 As told at the top.
 */
void jitcache_builder_source(struct jitcache_builder *builder, uint64_t code, uint64_t source);

/*
 Finds the place of what the engine calls by `name`: `jitcache_options.resolve` has its address when the entry is
 loaded.

 # Safety

 As told at the top.
 */
uint32_t jitcache_builder_import(struct jitcache_builder *builder,
                                 const char *name,
                                 struct jitcache_place *place);

/*
 Adds data, and returns the place of the first byte, a multiple of `alignment`: a power of two, at most 4096.

 # Safety

 As told at the top.
 */
struct jitcache_place jitcache_builder_data(struct jitcache_builder *builder,
                                            const uint8_t *data,
                                            size_t length,
                                            uint64_t alignment,
                                            bool is_writable);

/*
 Has the address of `target` written at `at`, `addend` added, by a `jitcache_relocation`; finishing tells of any other
 number.

 # Safety

 As told at the top.
 */
void jitcache_builder_relocate(struct jitcache_builder *builder,
                               struct jitcache_place at,
                               uint32_t kind,
                               struct jitcache_place target,
                               int64_t addend);

/*
 Returns the address of the function of that index, or null if there is none.

 # Safety

 As told at the top. Calling it is the engine's own: it has compiled what runs there.
 */
const void *jitcache_module_function(const struct jitcache_module *module, size_t index);

/*
 Returns the address of the function or of the data of that name, or null if there is no symbol of it.

 # Safety

 As told at the top.
 */
const void *jitcache_module_symbol(const struct jitcache_module *module, const char *name);

/*
 Returns the number of functions.

 # Safety

 As told at the top.
 */
size_t jitcache_module_functions(const struct jitcache_module *module);

/*
 Returns the code and its length in bytes; null if there is none.

 # Safety

 As told at the top.
 */
const uint8_t *jitcache_module_code(const struct jitcache_module *module, size_t *length);

/*
 Gives a module back; null is nothing. Its code is unmapped once nobody has it any more, the cache included.

 # Safety

 As told at the top, and none of its code runs, unless another handle of it is kept, or the cache, which has no memory
 budget, still has it.
 */
void jitcache_module_free(struct jitcache_module *module);

/*
 Opens the cache in a directory that nobody else can write to, or in memory alone if `root` is null; `options` may be
 null. It is to be freed by `jitcache_cache_free`.

 # Safety

 As told at the top; the functions of the options may be called by any thread, with their data, until the cache is
 freed, and do not unwind.
 */
uint32_t jitcache_cache_open(const char *root,
                             const struct jitcache_identity *identity,
                             const struct jitcache_options *options,
                             struct jitcache_cache **cache);

/*
 Frees a cache; null is nothing. Modules stay until they are freed.

 # Safety

 As told at the top, and no code runs but that of modules that were not freed.
 */
void jitcache_cache_free(struct jitcache_cache *cache);

/*
 Returns the module of a key from memory, or from the directory, or compiles it and stores what comes of that. One
 thread or process compiles, and those who want the same wait for it, within bounds.

 # Safety

 As told at the top; `compile` does not unwind.
 */
uint32_t jitcache_get_or_compile(const struct jitcache_cache *cache,
                                 const struct jitcache_key *key,
                                 jitcache_compile compile,
                                 void *data,
                                 struct jitcache_module **module);

/*
 Stores the entries that wait for it, and returns how many were stored. To be called by a thread that has nothing
 better to do; freeing the cache does it, too.

 # Safety

 As told at the top.
 */
uint64_t jitcache_flush(const struct jitcache_cache *cache);

/*
 Returns the module of a key from memory or from the directory, or null. Nobody is waited for.

 # Safety

 As told at the top.
 */
struct jitcache_module *jitcache_get(const struct jitcache_cache *cache, const struct jitcache_key *key);

/*
 Removes a module from memory, and its entry from the directory.

 # Safety

 As told at the top.
 */
uint32_t jitcache_remove(const struct jitcache_cache *cache, const struct jitcache_key *key);

/*
 Finds the place of a program counter, a return address if it `is_return` and otherwise that of an instruction, and
 returns whether it is in a module of the cache. May be called by a signal handler.

 # Safety

 As told at the top.
 */
bool jitcache_locate(const struct jitcache_cache *cache,
                     const void *pc,
                     bool is_return,
                     struct jitcache_location *location);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JITCACHE_H */
