/* Takes the mean of each channel; `out` may be `in`. */
static void mean(const float *in, int32_t channels, int32_t pixels, float *out)
{
    for (int32_t channel = 0; channel < channels; channel++) {
        float sum = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            sum += in[channel * pixels + pixel];
        }
        out[channel] = sum / (float)pixels;
    }
}
