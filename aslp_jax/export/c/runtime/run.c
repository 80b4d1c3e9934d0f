/* Computes a layer. `sums` holds those of one unit where 2x2 windows are taken. */
static void run(const struct layer *layer, const float *in, float *sums, float *out)
{
    const int32_t size = layer->height * layer->width;
    struct cursor cursor = start(&layer->weights);
    for (int32_t unit = 0; unit < layer->units; unit++) {
        const float scale = layer->scales ? layer->scales[unit] : layer->scale;
        const float shift = layer->shifts ? layer->shifts[unit] : 0;
        if (!layer->pool) {
            sums = out;
        }
        for (int32_t index = 0; index < size; index++) {
            sums[index] = 0;
        }
        sum_unit(layer, &cursor, in, unit, sums);
#if GROUPED
        if ((unit + 1) % layer->group_units == 0) {
            in += layer->channels * layer->in_size;
        }
#endif
        for (int32_t index = 0; index < size; index++) {
            const float value = sums[index] * scale + shift;
            sums[index] = layer->relu && value < 0 ? 0 : value;
        }
        if (!layer->pool) {
            out += size;
            continue;
        }
        for (int32_t y = 0; y + 1 < layer->height; y += 2) {
            for (int32_t x = 0; x + 1 < layer->width; x += 2) {
                const float *upper = sums + y * layer->width + x;
                const float *lower = upper + layer->width;
                const float above = upper[0] > upper[1] ? upper[0] : upper[1];
                const float below = lower[0] > lower[1] ? lower[0] : lower[1];
                *out++ = above > below ? above : below;
            }
        }
    }
}
