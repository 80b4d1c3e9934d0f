/* Text, files and the end of the program, by the computer that the board hangs on: an
   emulator or a debugger. Arm calls it semihosting; its specification has the numbers of
   the requests. */

#ifndef HOST_H
#define HOST_H

#include <stdint.h>

/* Asks the host; `block` is the address of the request's arguments. */
static inline int32_t host_ask(int32_t request, const void *block)
{
    register int32_t first __asm__("r0") = request;
    register const void *second __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(first) : "r"(second) : "memory");
    return first;
}

static inline void host_print(const char *text)
{
    host_ask(0x04, text);
}

/* Opens a file in the folder that the host works in. Returns a negative number if it
   cannot. */
static inline int32_t host_open(const char *name, int32_t length, int writes)
{
    const struct {
        const char *name;
        int32_t mode, length;
    } block = {name, writes ? 5 : 1, length}; /* "wb" or "rb" */
    return host_ask(0x01, &block);
}

/* Writes or reads `size` bytes. Returns the number of bytes that are missing. */
static inline int32_t host_write(int32_t file, const void *from, int32_t size)
{
    const struct {
        int32_t file;
        const void *from;
        int32_t size;
    } block = {file, from, size};
    return host_ask(0x05, &block);
}

static inline int32_t host_read(int32_t file, void *to, int32_t size)
{
    const struct {
        int32_t file;
        void *to;
        int32_t size;
    } block = {file, to, size};
    return host_ask(0x06, &block);
}

/* Ends the program with an exit code. */
static inline void host_exit(int code)
{
    const int32_t block[2] = {0x20026, code}; /* the program has ended by itself */
    for (;;) {
        host_ask(0x20, block);
    }
}

#endif
