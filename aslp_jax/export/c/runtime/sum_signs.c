static float dense_sum(const struct layer *layer, struct cursor *cursor,
                       const float *in, int32_t unit)
{
    /* Four sums, so that none waits for the one before. */
    float sums[4] = {0, 0, 0, 0};
    (void)unit;
    for (int32_t left = layer->channels * layer->kernel_size; left > 0; left -= SPAN) {
        uint8_t list[SPAN + 4];
        const int32_t count = find_bits(&cursor->kept, left, list);
        int32_t index = 0;
        for (; index + 4 <= count; index += 4) {
            const uint32_t negative = next_bits(&cursor->negative, 4);
            for (int32_t lane = 0; lane < 4; lane++) {
                sums[lane] += negated(in[list[index + lane]], negative << (31 - lane));
            }
        }
        for (; index < count; index++) {
            sums[0] += negated(in[list[index]], next_bits(&cursor->negative, 1) << 31);
        }
        in += SPAN;
    }
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static void add_channel(const struct layer *layer, struct cursor *cursor,
                        const float *in, int32_t channel, int32_t unit, float *sums)
{
    (void)channel;
    (void)unit;
    for (int32_t first = 0; first < layer->kernel_size; first += SPAN) {
        uint8_t list[SPAN + 4];
        const int32_t left = layer->kernel_size - first;
        const int32_t count = find_bits(&cursor->kept, left, list);
        for (int32_t index = 0; index < count; index++) {
            const struct tap *tap = &layer->taps[first + list[index]];
            add_signed(layer, in, tap, next_bits(&cursor->negative, 1), sums);
        }
    }
}
