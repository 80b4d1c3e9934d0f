static struct cursor start_NUMBERS(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.negative.byte = weights->negative;
    cursor.negative.next = 0;
    return cursor;
}

static int32_t dense_sum_NUMBERS(const struct layer *layer, struct cursor *cursor,
                                 const NUMBER *in)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    int32_t sum = 0;
    for (int32_t index = 0; index < inputs;) {
        const int32_t end = index + left_in_byte(&cursor->kept, inputs - index);
        uint32_t rest = rest_of_byte(&cursor->kept);
        cursor->kept.next += (uint32_t)(end - index);
        if (!rest) {
            index = end;
        }
        for (; index < end; index++) {
            const uint32_t kept = rest & 1;
            const int32_t negative = bit_at(&cursor->negative);
            cursor->negative.next += kept;
            /* Without a branch, since a processor guesses half of them wrong. */
            sum += ((in[index] ^ -negative) + negative) & -(int32_t)kept;
            rest >>= 1;
        }
    }
    return sum;
}

/* Sums the window of a unit, weight by weight. */
static void sum_unit_NUMBERS(const struct layer *layer, struct cursor *cursor,
                             const NUMBER *in, int32_t unit)
{
    (void)unit;
    if (layer->dense) {
        *sums = dense_sum_NUMBERS(layer, cursor, in);
        return;
    }
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        for (int32_t index = 0; index < layer->kernel_size; index++) {
            if (next_bit(&cursor->kept)) {
                const int32_t weight = next_bit(&cursor->negative) ? -1 : 1;
                add_NUMBERS(layer, in, &layer->taps[index], weight);
            }
        }
        in += layer->in_size;
    }
}
