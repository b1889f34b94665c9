// Package widget draws the parts that screens are made of: panels, bars, lists, buttons. Each is a pure function from
// data, theme and size to lines of exactly the width asked for, whatever the data; sizes of zero and below give nothing.
// Text must have passed through package clean.
package widget
