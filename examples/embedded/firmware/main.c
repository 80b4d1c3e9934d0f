/* Runs the network on the board, over images that the host has.

   Reads `images.bin`: each image, and a byte that says what it shows. Writes
   `results.bin`: for each image the ticks of the board's timer that it took, and its
   logits. Prints how many images are read rightly, and how much stack was used. */

#include "board.h"
#include "host.h"
#include "network.h"
#include "startup.h"

/* A network of no classes has a function of another name. */
#ifndef NETWORK_CLASSES
#define NETWORK_CLASSES NETWORK_OUTPUTS
#define network_logit network_output
#define network_logits network_run
#endif

static struct {
#ifdef NETWORK_IMAGE_BYTES
    uint8_t numbers[NETWORK_IMAGE_BYTES];
#else
    network_input numbers[NETWORK_INPUTS];
#endif
    uint8_t label;
} image;

static struct {
    uint32_t ticks;
    network_logit logits[NETWORK_CLASSES];
} result;

static int likeliest(const network_logit *logits)
{
    int best = 0;
    for (int index = 1; index < NETWORK_CLASSES; index++) {
        if (logits[index] > logits[best]) {
            best = index;
        }
    }
    return best;
}

static void print_number(uint32_t number)
{
    char text[11];
    char *digit = text + sizeof text - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    host_print(digit);
}

static int32_t open_file(const char *name, int32_t length, int writes)
{
    const int32_t file = host_open(name, length, writes);
    if (file < 0) {
        host_print("the host cannot open ");
        host_print(name);
        host_print("\n");
        host_exit(1);
    }
    return file;
}

int main(void)
{
    const int32_t images = open_file("images.bin", 10, 0);
    const int32_t results = open_file("results.bin", 11, 1);
    uint32_t count = 0, right = 0;
    while (host_read(images, &image, sizeof image) == 0) {
        const uint32_t begin = board_ticks();
        network_logits(image.numbers, result.logits);
        result.ticks = board_ticks() - begin;
        if (host_write(results, &result, sizeof result) != 0) {
            host_print("the host cannot write results.bin\n");
            return 1;
        }
        right += likeliest(result.logits) == image.label;
        count++;
    }
    const uint32_t stack = stack_depth(stack_pointer());
    const uint32_t thousandths = count ? (1000 * right + count / 2) / count : 0;
    host_print(BOARD ": ");
    print_number(right);
    host_print(" of ");
    print_number(count);
    host_print(" images are read rightly (");
    print_number(thousandths / 10);
    host_print(".");
    print_number(thousandths % 10);
    host_print(" %)\nstack: ");
    print_number(stack_size());
    host_print(" bytes, of which the network takes ");
    print_number(stack);
    host_print("\n");
    return 0;
}
