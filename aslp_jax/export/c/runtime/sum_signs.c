/* How many bits are left of the byte at hand. */
static int32_t left_in_byte(const struct bits *bits)
{
    return 8 - (int32_t)(bits->next & 7);
}

/* Those bits; 0 where none of them is 1. */
static int rest_of_byte(const struct bits *bits)
{
    return bits->byte[bits->next >> 3] >> (bits->next & 7);
}

static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.negative.byte = weights->negative;
    cursor.negative.next = 0;
    return cursor;
}

static float dense_sum(const struct layer *layer, struct cursor *cursor,
                       const float *in, int32_t unit)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    float sum = 0;
    (void)unit;
    for (int32_t index = 0; index < inputs;) {
        int32_t end = index + left_in_byte(&cursor->kept);
        end = end < inputs ? end : inputs;
        if (!rest_of_byte(&cursor->kept)) {
            cursor->kept.next += (uint32_t)(end - index);
            index = end;
        }
        for (; index < end; index++) {
            /* Looked up, since a processor guesses half of such branches wrong. */
            const float choices[3] = {0, in[index], -in[index]};
            const int kept = next_bit(&cursor->kept);
            const int negative = kept & bit_at(&cursor->negative);
            cursor->negative.next += (uint32_t)kept;
            sum += choices[kept + negative];
        }
    }
    return sum;
}

static void add_next(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t channel, int32_t index, int32_t unit, float *sums)
{
    (void)channel;
    (void)unit;
    if (next_bit(&cursor->kept)) {
        const int negative = next_bit(&cursor->negative);
        add_signed(layer, in, &layer->taps[index], negative, sums);
    }
}
