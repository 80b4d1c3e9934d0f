static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.value = weights->values;
    cursor.gap = weights->gaps;
    cursor.ahead = 0;
    find_next(&cursor);
    return cursor;
}

static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    const int32_t taps = layer->kernel_height * layer->kernel_width;
    const int32_t inputs = layer->in_channels * taps;
    (void)unit;
    if (layer->dense) {
        float sum = 0;
        while (cursor->ahead < inputs) {
            sum += *cursor->value++ * in[cursor->ahead];
            find_next(cursor);
        }
        *sums = sum;
    } else {
        while (cursor->ahead < inputs) {
            const int32_t tap = cursor->ahead % taps;
            add_weighted(layer, in, cursor->ahead / taps, tap / layer->kernel_width,
                         tap % layer->kernel_width, *cursor->value++, sums);
            find_next(cursor);
        }
    }
    cursor->ahead -= inputs;
}
