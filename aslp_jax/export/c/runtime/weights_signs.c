/* A bit for each weight, 1 where it is kept, unit by unit in the order of the input; and
   a bit for each that is kept, 1 where it is negative. All are 1 or -1 times `scale`. */

struct weights {
    const uint8_t *kept;
    const uint8_t *negative;
};

struct cursor {
    struct bits kept, negative;
};

static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.negative.byte = weights->negative;
    cursor.negative.next = 0;
    return cursor;
}
