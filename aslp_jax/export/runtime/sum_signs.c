static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.negative.byte = weights->negative;
    cursor.negative.next = 0;
    return cursor;
}

static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    (void)unit;
    if (layer->dense) {
        const int32_t inputs =
            layer->in_channels * layer->kernel_height * layer->kernel_width;
        float sum = 0;
        for (int32_t index = 0; index < inputs; index++) {
            /* Looked up, since a processor guesses half of such branches wrong. */
            const float choices[3] = {0, in[index], -in[index]};
            const int kept = next_bit(&cursor->kept);
            const int negative = kept & bit_at(&cursor->negative);
            cursor->negative.next += (uint32_t)kept;
            sum += choices[kept + negative];
        }
        *sums = sum;
        return;
    }
    for (int32_t channel = 0; channel < layer->in_channels; channel++) {
        for (int32_t row = 0; row < layer->kernel_height; row++) {
            for (int32_t column = 0; column < layer->kernel_width; column++) {
                if (next_bit(&cursor->kept)) {
                    add_signed(layer, in, channel, row, column,
                               next_bit(&cursor->negative), sums);
                }
            }
        }
    }
}
