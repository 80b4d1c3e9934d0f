/* Adds to the sums of a unit what one weight contributes to each of them. */
static void add_weighted(const struct layer *layer, const float *channel,
                         const struct tap *tap, float weight, float *sums)
{
    for (int32_t y = tap->top; y < tap->bottom; y++) {
        const int32_t first = tap->offset + y * layer->row_step;
        float *sum = sums + y * layer->width;
        for (int32_t x = tap->left; x < tap->right; x++) {
            sum[x] += weight * channel[first + x * layer->step];
        }
    }
}
