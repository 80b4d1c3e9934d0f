/* Adds to some neighbouring sums what one weight contributes to each of them. */
static void add_row_NUMBERS(int32_t count, const NUMBER *RESTRICT in, int32_t step,
                            int32_t weight, partial_sum *RESTRICT sum)
{
    if (step != 1) {
        for (int32_t index = 0; index < count; index++) {
            sum[index] = (partial_sum)(sum[index] + weight * in[index * step]);
        }
        return;
    }
#if SIGNS_ALONE
    if (weight > 0) {
#if UNROLLED
        for (; count >= 4; count -= 4, in += 4, sum += 4) {
            sum[0] = (partial_sum)(sum[0] + in[0]);
            sum[1] = (partial_sum)(sum[1] + in[1]);
            sum[2] = (partial_sum)(sum[2] + in[2]);
            sum[3] = (partial_sum)(sum[3] + in[3]);
        }
#endif
        for (int32_t index = 0; index < count; index++) {
            sum[index] = (partial_sum)(sum[index] + in[index]);
        }
    } else {
#if UNROLLED
        for (; count >= 4; count -= 4, in += 4, sum += 4) {
            sum[0] = (partial_sum)(sum[0] - in[0]);
            sum[1] = (partial_sum)(sum[1] - in[1]);
            sum[2] = (partial_sum)(sum[2] - in[2]);
            sum[3] = (partial_sum)(sum[3] - in[3]);
        }
#endif
        for (int32_t index = 0; index < count; index++) {
            sum[index] = (partial_sum)(sum[index] - in[index]);
        }
    }
#else
    for (int32_t index = 0; index < count; index++) {
        sum[index] += weight * in[index];
    }
#endif
}

/* Adds to the sums of a unit what one weight contributes to each of them. */
static void add_NUMBERS(const struct layer *layer, const NUMBER *channel,
                        const struct tap *tap, int32_t weight)
{
    const int32_t step = layer->step, row_step = layer->row_step;
    const int32_t width = layer->width, left = tap->left;
    const int32_t count = tap->right - left, rows = tap->bottom - tap->top;
    const int32_t gap = width - count;
    if (count <= 0 || rows <= 0) {
        return;
    }
    const NUMBER *in = channel + (tap->offset + tap->top * row_step + left * step);
    partial_sum *sum = partial_sums + (tap->top * width + left);
    if (row_step == width * step && gap < count) {
        /* One long row is faster. What is wrong between two rows is taken back. */
        const int32_t whole = rows * width - gap;
        add_row_NUMBERS(whole, in, step, weight, sum);
        for (int32_t begin = count; begin < width; begin++) {
            for (int32_t at = begin; at < whole; at += width) {
                sum[at] = (partial_sum)(sum[at] - weight * in[at * step]);
            }
        }
    } else {
        for (int32_t y = 0; y < rows; y++) {
            add_row_NUMBERS(count, in + y * row_step, step, weight, sum + y * width);
        }
    }
#if PARTIAL_SUMS
    if (++added == 128) {
        collect(layer->height * width);
    }
#endif
}
