/* Adds to the sums of a unit what one weight contributes to each of them. */
static void add_weighted(const struct layer *layer, const float *channel,
                         const struct tap *tap, float weight, float *sums)
{
    const int32_t step = layer->step, row_step = layer->row_step;
    const int32_t left = tap->left, right = tap->right;
    for (int32_t y = tap->top; y < tap->bottom; y++) {
        const int32_t first = tap->offset + y * row_step;
        float *sum = sums + y * layer->width;
        for (int32_t x = left; x < right; x++) {
            sum[x] += weight * channel[first + x * step];
        }
    }
}
