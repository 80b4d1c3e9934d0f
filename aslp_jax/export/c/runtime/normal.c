/* The standard normal number that JAX makes of a word: uniform in (-1, 1), then
   sqrt(2) erfinv, by the polynomials of Giles 2012, "Approximating the erfinv
   function". */
static float normal(uint32_t word)
{
    static const float central[9] = {2.81022636e-08f,  3.43273939e-07f, -3.5233877e-06f,
                                     -4.39150654e-06f, 0.00021858087f,  -0.00125372503f,
                                     -0.00417768164f,  0.246640727f,    1.50140941f};
    static const float tails[9] = {-0.000200214257f, 0.000100950558f, 0.00134934322f,
                                   -0.00367342844f,  0.00573950773f,  -0.0076224613f,
                                   0.00943887047f,   1.00167406f,     2.83297682f};
    const float least = -0.99999994f;
    const float unit = (float)(word >> 9) * 1.1920929e-07f; /* 2^-23 */
    const float uniform = unit * 2 + least;
    const float bounded = uniform < least ? least : uniform;
    const float depth = -log1pf(-bounded * bounded);
    const int in_tail = depth >= 5;
    const float *coefficients = in_tail ? tails : central;
    const float at = in_tail ? sqrtf(depth) - 3 : depth - 2.5f;
    float value = coefficients[0];
    for (int32_t index = 1; index < 9; index++) {
        value = coefficients[index] + value * at;
    }
    return 1.41421356f * value * bounded;
}
