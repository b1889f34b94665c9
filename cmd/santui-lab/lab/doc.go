// Package lab runs a small network of real Linux kernels.
package lab
