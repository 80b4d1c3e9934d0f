/* Computes a layer. */
static void run_NUMBERS(const struct layer *layer, const NUMBER *in, void *out)
{
    const int32_t size = layer->height * layer->width;
    struct cursor cursor = start(&layer->weights);
    int32_t at = 0;
    for (int32_t unit = 0; unit < layer->units; unit++) {
        for (int32_t index = 0; index < size; index++) {
            sums[index] = 0;
        }
        sum_unit_NUMBERS(layer, &cursor, in, unit);
#if GROUPED
        if ((unit + 1) % layer->group_units == 0) {
            in += layer->channels * layer->in_size;
        }
#endif
        at += finish(layer, unit, out, at);
    }
}
