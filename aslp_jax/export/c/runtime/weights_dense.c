/* All weights, unit by unit in the order of the input. */

struct weights {
    const WEIGHT *values;
};

struct cursor {
    const WEIGHT *value;
};
