/* The stack: where it is, and how much of it has been used since the start. */

#ifndef STARTUP_H
#define STARTUP_H

#include <stdint.h>

/* Returns the end of the stack in the function that calls it. */
static inline const volatile uint32_t *stack_pointer(void)
{
    const volatile uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    return here;
}

/* Returns the bytes below an address of the stack that were ever used. */
uint32_t stack_depth(const volatile uint32_t *from);

/* Returns the bytes of the whole stack that were ever used. */
uint32_t stack_size(void);

#endif
