static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.inverted.byte = weights->inverted;
    cursor.inverted.next = 0;
    return cursor;
}

/* Adds what the weight of a random word contributes to the sums of a unit. */
static void add_drawn(const struct layer *layer, const float *in, int32_t channel,
                      int32_t row, int32_t column, uint32_t word, int inverted,
                      float *sums)
{
    const enum law law = layer->weights.law;
#if NORMAL_WEIGHTS
    if (law == NORMAL) {
        const float weight = normal(word);
        add_weighted(layer, in, channel, row, column, inverted ? -weight : weight, sums);
        return;
    }
#endif
    /* Numbers below one half have a highest bit of 0. */
    const int negative = law == SIGNS ? !(word >> 31) : (int)(word >> 31);
    add_signed(layer, in, channel, row, column, negative ^ inverted, sums);
}

static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    const struct weights *weights = &layer->weights;
    const float *input = in;
    for (int32_t channel = 0; channel < layer->in_channels; channel++) {
        for (int32_t row = 0; row < layer->kernel_height; row++) {
            for (int32_t column = 0; column < layer->kernel_width; column++) {
                const float value = *input;
                input += layer->dense;
                if (!next_bit(&cursor->kept)) {
                    continue;
                }
                const int inverted = weights->inverted && next_bit(&cursor->inverted);
                /* What is multiplied with 0 need not be drawn. */
                if (layer->dense && value == 0) {
                    continue;
                }
                const int32_t tap = row * layer->kernel_width + column;
                const int32_t index =
                    (tap * layer->in_channels + channel) * layer->units + unit;
                add_drawn(layer, in, channel, row, column,
                          random_word(weights->key, (uint32_t)index), inverted, sums);
            }
        }
    }
}
