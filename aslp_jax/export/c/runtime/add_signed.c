/* Adds to the sums of a unit what a weight of 1 or -1 contributes to each of them. */
static void add_signed(const struct layer *layer, const float *channel,
                       const struct tap *tap, int negative, float *sums)
{
    const int32_t step = layer->step, row_step = layer->row_step, left = tap->left;
    for (int32_t y = tap->top; y < tap->bottom; y++) {
        const float *first = channel + (tap->offset + y * row_step + left * step);
        float *sum = sums + y * layer->width;
        if (negative) {
            for (int32_t x = left; x < tap->right; x++) {
                sum[x] -= first[(x - left) * step];
            }
        } else {
            for (int32_t x = left; x < tap->right; x++) {
                sum[x] += first[(x - left) * step];
            }
        }
    }
}
