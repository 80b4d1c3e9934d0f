/* Sums the window of a unit that covers the whole input, some weights at a time. */
static int32_t dense_sum_NUMBERS(const struct layer *layer, struct cursor *cursor,
                                 const NUMBER *in)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    int8_t weights[DECODED];
    int32_t sum = 0;
    for (int32_t begin = 0; begin < inputs; begin += DECODED) {
        const int32_t left = inputs - begin, count = left < DECODED ? left : DECODED;
        decode(cursor, count, weights);
        for (int32_t index = 0; index < count; index++) {
            sum += weights[index] * in[begin + index];
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
