/* What runs before main: the processor takes the stack and the address of `reset` from the
   vectors. The linker script defines the names that end in `_begin`, `_end` and `_top`. */

#include "startup.h"

#include "board.h"
#include "host.h"

#define PAINT 0xA5A5A5A5u /* of words of the stack that nothing has written to */

extern uint32_t data_stored[], data_begin[], data_end[], bss_begin[], bss_end[];
extern uint32_t stack_top[];

int main(void);
void reset(void);

/* Every exception ends the program. */
static void fault(void)
{
    host_print("the processor has met an error\n");
    host_exit(1);
}

void reset(void)
{
    board_start();
    const uint32_t *stored = data_stored;
    for (uint32_t *word = data_begin; word < data_end; word++) {
        *word = *stored++;
    }
    for (uint32_t *word = bss_begin; word < bss_end; word++) {
        *word = 0;
    }
    const volatile uint32_t *here = stack_pointer();
    for (volatile uint32_t *word = bss_end; word < here; word++) {
        *word = PAINT;
    }
    host_exit(main());
}

typedef void (*handler)(void);

/* Reset, NMI and the faults. No interrupt is on. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler reset;
    handler faults[5];
} vectors = {stack_top, reset, {fault, fault, fault, fault, fault}};

uint32_t stack_depth(const volatile uint32_t *from)
{
    const volatile uint32_t *word = bss_end;
    if (*word != PAINT) {
        host_print("the stack has met the data\n");
        host_exit(1);
    }
    while (word < from && *word == PAINT) {
        word++;
    }
    return (uint32_t)((const volatile char *)from - (const volatile char *)word);
}

uint32_t stack_size(void)
{
    return stack_depth(stack_top);
}
