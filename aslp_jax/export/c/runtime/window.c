/* The sum or the maximum of the numbers in each window, plane by plane. */
struct window {
    int32_t is_sum;
    int32_t planes, in_height, in_width, height, width;
    int32_t rows, columns, row_step, column_step, top, left; /* of the windows */
#if INTEGERS
    uint8_t kind; /* of the input, and of a maximum */
    struct requantization requantization; /* of a sum */
#endif
};

static void window(const struct window *window, const NUMBERS *in, NUMBERS *out)
{
    int32_t plane_at = 0, at = 0;
    for (int32_t plane = 0; plane < window->planes; plane++) {
        for (int32_t y = 0; y < window->height; y++) {
            for (int32_t x = 0; x < window->width; x++) {
                const int32_t top = y * window->row_step - window->top;
                const int32_t left = x * window->column_step - window->left;
                SUM result = window->is_sum ? 0 : LEAST;
                for (int32_t row = top; row < top + window->rows; row++) {
                    for (int32_t column = left; column < left + window->columns;
                         column++) {
                        if (row < 0 || row >= window->in_height || column < 0 ||
                            column >= window->in_width) {
                            continue;
                        }
                        const int32_t place = plane_at + row * window->in_width + column;
#if INTEGERS
                        const int32_t value = get(window->kind, in, place);
#else
                        const float value = in[place];
#endif
                        result = window->is_sum    ? result + value
                                 : result < value ? value
                                                  : result;
                    }
                }
#if INTEGERS
                if (window->is_sum) {
                    const struct requantization *step = &window->requantization;
                    result = requantize(step, (int64_t)result * step->multiplier +
                                                  step->offset);
                    put(step->kind, out, at++, result);
                } else {
                    put(window->kind, out, at++, result);
                }
#else
                out[at++] = result;
#endif
            }
        }
        plane_at += window->in_height * window->in_width;
    }
}
