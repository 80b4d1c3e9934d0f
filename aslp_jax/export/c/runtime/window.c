/* The sum or the maximum of the numbers in each window, plane by plane. */
struct window {
    int32_t is_sum;
    int32_t planes, in_height, in_width, height, width;
    int32_t rows, columns, row_step, column_step, top, left; /* of the windows */
};

static void window(const struct window *window, const float *in, float *out)
{
    for (int32_t plane = 0; plane < window->planes; plane++) {
        for (int32_t y = 0; y < window->height; y++) {
            for (int32_t x = 0; x < window->width; x++) {
                const int32_t top = y * window->row_step - window->top;
                const int32_t left = x * window->column_step - window->left;
                float result = window->is_sum ? 0 : -INFINITY;
                for (int32_t row = top; row < top + window->rows; row++) {
                    for (int32_t column = left; column < left + window->columns;
                         column++) {
                        if (row < 0 || row >= window->in_height || column < 0 ||
                            column >= window->in_width) {
                            continue;
                        }
                        const float value = in[row * window->in_width + column];
                        result = window->is_sum    ? result + value
                                 : result < value ? value
                                                  : result;
                    }
                }
                *out++ = result;
            }
        }
        in += window->in_height * window->in_width;
    }
}
