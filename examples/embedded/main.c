/* Prints ten handwritten digits and the classes that the network gives them.

   On a microcontroller, the image comes from a camera; one call gives its class. */

#include <stdio.h>

#include "digits.h"
#include "images.h"

static void print_image(const uint8_t *image)
{
    static const char shades[] = " .:-=+*#%@";
    for (int row = 0; row < DIGITS_HEIGHT; row++) {
        for (int column = 0; column < DIGITS_WIDTH; column++) {
            const char shade = shades[*image++ * 9 / 255];
            putchar(shade);
            putchar(shade);
        }
        putchar('\n');
    }
}

int main(void)
{
    int right = 0;
    for (int index = 0; index < IMAGES; index++) {
        const int found = digits_class(images[index]);
        print_image(images[index]);
        printf("this is a %d, and the network says %d\n\n", labels[index], found);
        right += found == labels[index];
    }
    printf("%d of %d are right\n", right, IMAGES);
    return 0;
}
