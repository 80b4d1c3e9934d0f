static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.value = weights->values;
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
            sum += *cursor->value++ * in[index];
        }
        *sums = sum;
        return;
    }
    for (int32_t channel = 0; channel < layer->in_channels; channel++) {
        for (int32_t row = 0; row < layer->kernel_height; row++) {
            for (int32_t column = 0; column < layer->kernel_width; column++) {
                add_weighted(layer, in, channel, row, column, *cursor->value++, sums);
            }
        }
    }
}
