/* A bit for each weight, 1 where it is kept, unit by unit in the order of the input. The
   weights themselves are drawn again from the key of their layer whenever they are used:
   signs alone, or normal numbers, times `scale`. Where some are inverted, a bit for each
   that is kept says so. */

enum law { SIGNS, OPPOSITE_SIGNS, NORMAL };

struct weights {
    const uint8_t *kept;
    const uint8_t *inverted; /* or a null pointer for none */
    uint32_t key[2];
    enum law law;
};

struct cursor {
    struct bits kept, inverted;
};

/* 1 where a word whose highest bit is 0 gives a weight of -1. */
static int32_t is_inverted(const struct weights *weights)
{
    return weights->law == SIGNS;
}

static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.inverted.byte = weights->inverted;
    cursor.inverted.next = 0;
    return cursor;
}
