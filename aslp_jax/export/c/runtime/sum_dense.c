static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.value = weights->values;
    return cursor;
}

static float dense_sum(const struct layer *layer, struct cursor *cursor,
                       const float *in, int32_t unit)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    float sum = 0;
    (void)unit;
    for (int32_t index = 0; index < inputs; index++) {
        sum += *cursor->value++ * in[index];
    }
    return sum;
}

static void add_next(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t channel, int32_t index, int32_t unit, float *sums)
{
    (void)channel;
    (void)unit;
    add_weighted(layer, in, &layer->taps[index], *cursor->value++, sums);
}
