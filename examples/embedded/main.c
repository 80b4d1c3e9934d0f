/* Ten handwritten digits, and what the network takes them for.

   On a microcontroller, `image` comes from a camera and the class goes where it is
   needed; all between is one call. */

#include <stdio.h>

#include "digits.h"
#include "images.h"

static void draw(const uint8_t *image)
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
        draw(images[index]);
        printf("this is a %d, and the network says %d\n\n", labels[index], found);
        right += found == labels[index];
    }
    printf("%d of %d are right\n", right, IMAGES);
    return 0;
}
