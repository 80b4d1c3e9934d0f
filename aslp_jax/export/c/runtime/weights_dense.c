/* All weights, unit by unit in the order of the input. */

struct weights {
    const WEIGHT *values;
};

struct cursor {
    const WEIGHT *value;
};

static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.value = weights->values;
    return cursor;
}
