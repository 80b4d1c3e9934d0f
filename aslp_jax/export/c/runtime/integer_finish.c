/* Makes numbers of a unit's sums and writes them; returns how many. */
static int32_t finish(const struct layer *layer, int32_t unit, void *out, int32_t at)
{
    const struct requantization *step = &layer->requantization;
    const int32_t factor = step->multipliers ? step->multipliers[unit] : step->multiplier;
    const int64_t offset = step->offsets ? step->offsets[unit] : step->offset;
    const int32_t width = layer->width, size = layer->height * width;
    int32_t count = 0;
#if PARTIAL_SUMS
    if (added) {
        collect(size);
    }
#endif
    for (int32_t index = 0; index < size; index++) {
        sums[index] = requantize(step, (int64_t)sums[index] * factor + offset);
    }
#if POOLED
    if (layer->pool) {
        for (int32_t y = 0; y + 1 < layer->height; y += 2) {
            for (int32_t x = 0; x + 1 < width; x += 2) {
                const int32_t *upper = sums + y * width + x;
                const int32_t *lower = upper + width;
                const int32_t above = upper[0] > upper[1] ? upper[0] : upper[1];
                const int32_t below = lower[0] > lower[1] ? lower[0] : lower[1];
                put(step->kind, out, at + count++, above > below ? above : below);
            }
        }
        return count;
    }
#endif
    for (; count < size; count++) {
        put(step->kind, out, at + count, sums[count]);
    }
    return count;
}
