static float dense_sum(const struct layer *layer, struct cursor *cursor,
                       const float *in, int32_t unit)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    const float *value = cursor->value;
    /* Four sums, so that none waits for the one before. */
    float sums[4] = {0, 0, 0, 0};
    int32_t index = 0;
    (void)unit;
    for (; index + 4 <= inputs; index += 4) {
        for (int32_t lane = 0; lane < 4; lane++) {
            sums[lane] += value[index + lane] * in[index + lane];
        }
    }
    for (; index < inputs; index++) {
        sums[0] += value[index] * in[index];
    }
    cursor->value += inputs;
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static void add_channel(const struct layer *layer, struct cursor *cursor,
                        const float *in, int32_t channel, int32_t unit, float *sums)
{
    (void)channel;
    (void)unit;
    for (int32_t index = 0; index < layer->kernel_size; index++) {
        add_weighted(layer, in, &layer->taps[index], *cursor->value++, sums);
    }
}
