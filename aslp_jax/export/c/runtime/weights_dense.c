/* All weights as floats, unit by unit in the order of the input. */

struct weights {
    const float *values;
};

struct cursor {
    const float *value;
};
