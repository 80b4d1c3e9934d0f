/* The weights that are kept, unit by unit in the order of the input, and how far each is
   from the one before: a byte, and 255 for 255 weights that are not kept with the next
   kept one still to come. A last distance leads behind the end. */

struct weights {
    const WEIGHT *values;
    const uint8_t *gaps;
};

struct cursor {
    const WEIGHT *value;
    const uint8_t *gap;
    int32_t ahead; /* weights until the next kept one, from the start of the unit */
};

static void find_next(struct cursor *cursor)
{
    while (*cursor->gap == 255) {
        cursor->gap++;
        cursor->ahead += 255;
    }
    cursor->ahead += *cursor->gap++;
}

static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.value = weights->values;
    cursor.gap = weights->gaps;
    cursor.ahead = 0;
    find_next(&cursor);
    return cursor;
}
