/* Turns bytes, channels last, into what the network was selected on, channels first. */
static void prepare(const PIXEL *image, float *out)
{
    for (int32_t pixel = 0; pixel < PIXELS; pixel++) {
        for (int32_t channel = 0; channel < CHANNELS; channel++) {
            float value = (float)*image++ / 255;
#if STANDARDISED
            value = (value - pixel_mean[channel]) / pixel_std[channel];
#endif
            out[channel * PIXELS + pixel] = value;
        }
    }
}
