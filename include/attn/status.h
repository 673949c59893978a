/* Status codes and the error record that keeps the first failure's text. */
#ifndef ATTN_STATUS_H
#define ATTN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ATTN_MUST_CHECK          __attribute__((warn_unused_result))
#define ATTN_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define ATTN_MUST_CHECK
#define ATTN_PRINTF(text, first)
#endif

/** What a call came to. Failures are negative; results travel through pointers. */
typedef enum attn_status {
    ATTN_OK = 0,
    ATTN_EMEMORY = -1,      /**< an allocation failed */
    ATTN_EIO = -2,          /**< reading or writing a file failed */
    ATTN_EFORMAT = -3,      /**< a file or text is not in the form it claims */
    ATTN_ESHAPE = -4,       /**< sizes do not fit each other, or overflow */
    ATTN_EARGUMENT = -5,    /**< a value is outside what the option allows */
    ATTN_ENOTFOUND = -6,    /**< no such name, row or file */
    ATTN_EUNSUPPORTED = -7, /**< this build or machine cannot do it */
    ATTN_EBUSY = -8,        /**< somebody else holds it */
    ATTN_EINTERRUPTED = -9, /**< stopped by the user; what was done is kept */
    ATTN_EINTERNAL = -10    /**< a promise inside the program was broken */
} attn_status;

/** Room for the text of one error: one line, without a newline. */
enum { ATTN_ERROR_TEXT_BYTES = 512 };

/**
 * The first failure of a chain of calls. Zero-initialise it (`attn_error e = {0}`); later
 * failures do not overwrite the first.
 */
typedef struct attn_error {
    attn_status status;
    char text[ATTN_ERROR_TEXT_BYTES];
} attn_error;

/**
 * Name a status, such as "out of memory".
 *
 * @return a static string, never NULL, also for values outside the enum.
 */
const char *attn_status_text(attn_status status);

#ifdef __cplusplus
}
#endif
#endif
